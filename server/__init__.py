"""The composition root: the `luthier-server` command, and `up`: all of it on one machine.

The only room that may import `api`, `worker` and `training`; nothing imports it.
"""
