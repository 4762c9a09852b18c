"""Drafts: workloads made from what others wrote: commit messages, mails, CrashMonkey's J-lang, fsx op logs.

A draft runs at once; what of its source was not understood is told with its line, never dropped silently.
"""
