"""Measurements that anyone can repeat: `modtrain bench` lists them."""
