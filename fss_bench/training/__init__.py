"""Training a method on the base classes of a fold: `trainer.train`."""
