"""`python -m teacher_dump` is `teacher-dump`."""

from teacher_dump.cli import main

if __name__ == "__main__":
    main()
