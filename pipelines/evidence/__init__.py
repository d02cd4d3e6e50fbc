"""What each part of C-MELT is worth, how it transfers to real records, and how it grows: trained and measured in resumable stages."""
