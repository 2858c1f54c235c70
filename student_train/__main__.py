"""What does `python -m student_train` do? The same as `student-train`."""

from student_train.cli import main

if __name__ == "__main__":
    main()
