"""The domain: tables, the job spec, the state machine, and all SQL.

Functions here take a synchronous `Session`. The worker calls them as they are; the API calls the
same ones through `AsyncSession.run_sync`, so each query exists once.
"""
