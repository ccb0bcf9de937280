"""A run of the search's models as a guest's program drives it."""

from pylbr.verify.models import Configuration
from pylbr.verify.replay import Run
from pylbr.verify.words import instruction, kind


class GuestRun:
    """Guest A runs; what it does not do itself is done until it runs again."""

    def __init__(self, policy, *features, flaws=(), kinds=("cpu-exclude", "cpu"), depth=2,
                 events=1):
        self.run = Run(Configuration(policy, flaws, depth=depth, guests=1, features=features,
                                     kinds=kinds, events=events).model())
        self.broken = 0
        self.resume()

    def act(self, name, argument=0):
        self.broken |= self.run.apply((kind(name), 0, argument))
        return self.run.seen()

    def resume(self):
        """Go on until the guest executes."""
        while True:
            cpu = self.run.cpu()
            if cpu["frames"]:
                self.act("step")
            elif cpu["guest"]:
                return
            elif cpu["task"] == "host":
                self.act("switch", 1)
            else:
                self.act("enter")

    def finish(self):
        """Go on until the operation in flight is over; what it showed, if anything."""
        seen = None
        while self.run.cpu()["frames"]:
            seen = self.act("step") or seen
        return seen

    def host(self):
        """Leave the guest; its thread continues in the host."""
        self.act("exit")
        self.finish()

    def can(self, what):
        return (kind("guest"), 0, instruction(what)) in self.run.actions()

    def guest(self, what):
        """One instruction, in words; what it showed."""
        seen = self.act("guest", instruction(what)) or self.finish()
        self.resume()
        return seen

    def read(self):
        return self.guest("rdmsr LBR")
