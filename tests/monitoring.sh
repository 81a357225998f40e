#!/usr/bin/env bash
# The alerts and the dashboard of packaging/examples, read by Prometheus' own promtool: they parse,
# name only metrics that somebody writes, and each alert fires when it should, and only then. The
# last line counts the cases.
#
#   tests/monitoring.sh [--list] [--only REGEX]
#
# Takes promtool from Debian's package, without installing a server.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

read_options --list '--only REGEX' -- "$@"

EXAMPLES=$REPO/packaging/examples
PROMTOOL=$CACHE/promtool

# Made under another name first: another run may look for it now.
get_promtool() {
    local made=$WORK/promtool
    [ ! -x "$PROMTOOL" ] || return 0
    mkdir "$made"
    ! apt update >/dev/null 2>&1 || UPDATED=true
    (cd "$made" && apt download prometheus >/dev/null 2>&1 && dpkg-deb --extract prometheus_*.deb .) || return
    mkdir -p "$CACHE"
    mv "$made/usr/bin/promtool" "$PROMTOOL.$$" && mv "$PROMTOOL.$$" "$PROMTOOL"
}

alerts_fire() {
    cp "$EXAMPLES/prometheus-alerts.yml" "$REPO/tests/monitoring/alerts.yml" "$WORK/"
    "$PROMTOOL" test rules "$WORK/alerts.yml"
}

expressions_parse() {
    mkdir -p "$SHM/list-indexes"
    "$COMMAND" status --prometheus --below "$SHM/list-indexes" >"$WORK/metrics"
    "$PYTHON" "$REPO/tests/monitoring/expressions.py" "$WORK/metrics" "$EXAMPLES" >"$WORK/dashboard.yml"
    "$PROMTOOL" check rules "$WORK/dashboard.yml" "$EXAMPLES/prometheus-alerts.yml"
    "$PROMTOOL" check metrics <"$WORK/metrics"
}

scenario - "each alert fires when it should, and only then" alerts_fire
scenario - "the dashboard and the alerts ask for metrics that are written" expressions_parse

list_scenarios
build_release || die "it does not build"
make_work_dirs
if get_promtool; then
    run_scenarios
else
    say "there is no package prometheus, which has promtool"
    SKIPPED=${#SCENARIOS[@]}
fi
print_result
