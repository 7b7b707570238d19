"""Servers and their lifecycle: images, templates, deployments, clouds, boot and decommission."""
