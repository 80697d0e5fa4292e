"""Self-supervised pretraining of a backbone on a folder of images: `trainer.pretrain`."""
