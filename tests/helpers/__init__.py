"""What several tests share: a sample of real images, a tiny configuration, and stand-ins."""
