"""Random walks at the real depth, beyond what a search can reach."""

from libc.stdint cimport uint32_t, uint64_t

from pylbr.verify.explore cimport Model
from pylbr.verify.world cimport MAX_ACTIONS, Action, World, apply, enabled
from pylbr.verify.properties import names_of


cdef class Walk:
    """Walk(model, seed=1)\n--\n
    One endless run of random actions, the same for the same seed.

    Parameters
    ----------
    model : Model
    seed : int

    Attributes
    ----------
    model : Model
    seed : int
    steps : int
        Actions so far.
    switches : int
        World switches (VM entries and exits) among them.
    broken : tuple of str
        Properties that the last step broke; the walk ends there.
    """

    cdef readonly Model model
    cdef readonly uint64_t seed, steps, switches
    cdef readonly tuple broken
    cdef World world
    cdef uint64_t random

    def __cinit__(self, Model model not None, uint64_t seed=1):
        self.model = model
        self.seed = seed
        self.world = model.initial
        self.random = seed * <uint64_t> 0x9E3779B97F4A7C15 | 1
        self.broken = ()

    def run(self, uint64_t steps, unsigned int ignore=0):
        """Take `steps` further actions, up to the first broken property not in `ignore` (bits).

        Returns
        -------
        bool
            True if all steps were taken and nothing broke.
        """
        cdef Action actions[MAX_ACTIONS]
        cdef uint32_t failed = 0
        cdef uint64_t end = self.steps + steps, before
        cdef int n
        cdef Action action
        with nogil:
            while self.steps < end and not failed and not self.model.policy.stopped:
                n = enabled(&self.world, self.model.policy, &self.model.options, actions)
                # xorshift64*
                self.random ^= self.random >> 12
                self.random ^= self.random << 25
                self.random ^= self.random >> 27
                action = actions[(self.random * <uint64_t> 0x2545F4914F6CDD1D >> 33)
                                 % <uint64_t> n]
                before = self.world.system.cpu[action.cpu].guest
                failed = apply(&self.world, self.model.policy, &self.model.options,
                               action) & ~ignore
                self.switches += before != self.world.system.cpu[action.cpu].guest
                self.steps += 1
        self.model.policy.check()
        if failed:
            self.broken = names_of(failed)
        return not failed
