"""Ground floor: settings, errors, ids, time, object storage, logging. Imports nothing of ours."""
