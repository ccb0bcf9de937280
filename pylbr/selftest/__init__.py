"""Selftests of any model and policy: guests, saved states, MSRs, contention; printed as KTAP."""
