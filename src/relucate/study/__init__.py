"""Many runs, one verdict: arms × seeds, worker processes, a store of finished runs."""
