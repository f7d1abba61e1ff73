"""Measurements that anyone can repeat: `python -m modtrain.bench queue|catalog|dashboard|judge|scores`."""
