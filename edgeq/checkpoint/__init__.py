"""The neutral quantized model: tensors on grids, shards, manifest, packing. No runtime's format."""
