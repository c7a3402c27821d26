"""What an artifact does: divergence from its checkpoint, speed, memory."""
