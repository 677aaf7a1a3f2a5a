"""Model servers that Samplewise itself starts, watches, restarts and stops."""
