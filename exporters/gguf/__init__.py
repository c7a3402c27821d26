"""GGUF: llama.cpp's file of block-quantized tensors."""
