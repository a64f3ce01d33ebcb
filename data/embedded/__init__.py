"""The pack that ships with the project, and the script that builds it."""
