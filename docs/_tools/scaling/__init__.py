"""How products over several processes scale: measured here on a few, modelled for many."""
