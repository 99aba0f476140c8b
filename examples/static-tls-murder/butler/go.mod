module example.com/butler

go 1.19
