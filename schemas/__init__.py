"""What is said: Avro contracts, the records they decode to, keys, stamps, serde and the error tree."""
