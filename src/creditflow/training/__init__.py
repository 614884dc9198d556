"""Training of one network, in pretraining and in fine-tuning: its settings, the loop over epochs and batches, what the
network is trained for, and what is measured along the way. Populations of networks are trained in `populations`."""
