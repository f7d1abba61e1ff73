"""Network blocks and adversarial losses that recipes share. Complete networks are in the recipes."""
