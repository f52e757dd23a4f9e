// Package docs reads the commands out of the documents, so that tests can run them.
//
//   - An indented block, or one that is fenced as sh, is commands, a line each. Whatever else a document shows is fenced and
//     names its language.
//   - A block fenced as text right after commands is what the last of them prints.
//   - A fence with a name after its language (yaml web.yml) is a file that the commands after it need.
//   - TestCommands knows for each command who runs it, and fails on one that it does not know.
package docs
