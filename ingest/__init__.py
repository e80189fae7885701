"""The data room: users' files in, one typed Arrow file a task out, every problem with its place.

Nothing here imports torch, a database or HTTP: it runs in a limited child of the control worker,
in the client's `luthier data check`, and in tests, alike.
"""
