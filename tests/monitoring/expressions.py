"""The dashboard's expressions as recording rules, which promtool can read; and that the dashboard and
the alerts name no metric of ours that nobody writes.

    expressions.py METRICS EXAMPLES >RULES

METRICS is what "nfs-hostchange status --prometheus" printed."""

import json
import pathlib
import re
import sys

metrics, examples = (pathlib.Path(argument) for argument in sys.argv[1:])
written = set(re.findall(r"^nfs_hostchange_\w+", metrics.read_text(), re.MULTILINE))
written |= set(re.findall(r"nfs_hostchange_\w+", (examples / "cron.d").read_text()))
if not written:
    sys.exit(f"{metrics}: no metric")
dashboard = json.loads((examples / "grafana-dashboard.json").read_text())
expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
for where, text in [
    ("grafana-dashboard.json", "\n".join(expressions)),
    ("prometheus-alerts.yml", (examples / "prometheus-alerts.yml").read_text()),
]:
    named = set(re.findall(r"\bnfs_hostchange_\w+", text))
    if not named or named - written:
        sys.exit(f"{where} names metrics that nobody writes: {sorted(named - written)}")
rules = [
    {"record": f"panel:{number}", "expr": expression.replace("$instance", ".*")}
    for number, expression in enumerate(expressions)
]
# JSON is YAML.
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)
