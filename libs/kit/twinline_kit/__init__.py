"""What every Twinline service shares: errors, identity, servers and clients, storage, logs.

It imports no service. What it knows of them: their names, as grants, and that `keys` tells whose token it is.
"""
