"""Published checkpoint layouts: one file each, holding one `LAYOUT`; the file name is its name."""
