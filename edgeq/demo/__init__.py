"""`edgeq demo`: the whole road on a small real model, from an empty folder to a measured artifact."""
