"""What the libraries lack; a file goes when its library has it."""
