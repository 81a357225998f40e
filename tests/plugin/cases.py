"""The plugin's cases, each a sentence."""

import contextlib
from dataclasses import dataclass
from typing import Callable

import operations
from backends import DRIVERS, Failed, Machine, Site, mailclient, wait_until

CASES = []


@dataclass
class Case:
    """RUN is given a Context."""

    sentence: str
    run: Callable
    long: bool = False
    versions: Callable = lambda machine: True


def case(sentence, **options):
    def note(function):
        CASES.append(Case(sentence, function, **options))
        return function

    return note


@dataclass
class Context:
    """The Dovecot that is tested, and the plugin that was built for it."""

    machine: Machine
    plugin: str

    def site(self, **options):
        return Site((self.machine, self.machine), **{"plugin": self.plugin, **options})

    def control(self, **options):
        return self.site(plugin=None, **options)


def expect(seen, wanted, what):
    if seen != wanted:
        raise Failed(f"{what}: {seen!r} instead of {wanted!r}")


def expect_quiet(site):
    """No log says that something is wrong."""
    for backend in site.backends.values():
        expect(backend.problems(), [], f"problems on {backend.name}")


# --- what one user does on a backend, another backend shows --------------------------------------


@case("without the plugin seven of twelve operations on one backend stay unseen on the other")
def _(context):
    with context.control() as site:
        expect(len(operations.stale(site)), 7, "stale operations")


def of_driver(driver):
    def run(context):
        with context.site(driver=driver) as site:
            expect(operations.stale(site), [], "stale operations")
            expect_quiet(site)

    return run


for driver in DRIVERS:
    case(f"all twelve operations on one backend are seen on the other ({driver})")(of_driver(driver))
