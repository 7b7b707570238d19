"""Streams to v5 agents: enrolment, presence, delivery."""
