"""The executor's database, split by noun. Every method is one short transaction and blocks; batches go in whole."""
