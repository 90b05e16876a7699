"""How adapters are trained: `loop` is the only training loop there is."""
