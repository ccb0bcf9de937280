"""RDMSR and WRMSR: the values, how each is accessed, and the dispatch by number."""
