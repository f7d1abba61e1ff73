"""Network blocks and adversarial losses that recipes share. Whole networks live in the recipe that describes them."""
