"""What happens on channels, told to the applications."""
