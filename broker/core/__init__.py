"""Sessions, subscriptions and queues of one broker."""
