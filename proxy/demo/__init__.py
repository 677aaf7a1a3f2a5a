"""`samplewise demo`: two real servers, two hundred problems, one table and one picture."""
