//! Vector operations of networks: norms, activations, softmax, rotary positions, attention.
