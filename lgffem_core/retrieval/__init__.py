"""Retrieval: embeddings, the FAISS search, the three protocols and their scores."""
