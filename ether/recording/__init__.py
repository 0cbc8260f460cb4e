"""From `ether.record()` to an acknowledged batch: outbox, sender, recorder."""
