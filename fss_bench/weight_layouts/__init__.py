"""Published layouts of backbone weights, one file each: `LAYOUT` in it is a `WeightLayout`."""
