"""What tests share: real servers, real certificates, real processes."""
