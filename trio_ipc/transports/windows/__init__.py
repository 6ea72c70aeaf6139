"""Windows: named pipes and the system calls they take. Only for Windows."""
