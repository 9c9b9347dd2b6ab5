"""Training: fit (the loop), windows, regimen, evaluate, observe, interrupt, autopsy (of a lost loss).

On disk: keep, checkpoint, restore. Several processes: together, shards.
"""
