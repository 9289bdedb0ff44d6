"""Loss, optimizer and the trainer."""
