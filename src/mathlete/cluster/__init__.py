"""Runs over several hosts with Ray: an engine a worker, problems pulled as tasks, one store on the head."""
