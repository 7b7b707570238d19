"""Targets, scripts, runs, tasks and their output; SSH to v4 hosts and dispatch to v5 agents."""
