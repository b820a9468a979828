// From an image file to the input of an exported network, with OpenCV 4.
//
//     Preprocessing how{32, 3, "stretch", "drop", "bgr",
//                       {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}, {124, 116, 104}};
//     cv::Mat input = prepare("photo.jpg", how);  // float32, size x size x 3; the network takes a batch of one
//
// The values are those of the JSON beside the graph: input.shape[1] and [3], resize, transparency, channel_order,
// image_normalize_mean, image_normalize_std, preprocessing.border_colour. A grey network has one number for each of the
// last three. To run it: net.setInput(cv::dnn::blobFromImage(input)) with cv::dnn::readNet("lenet5.pb"). To compile:
// g++ -std=c++11 -I/usr/include/opencv4 main.cpp -lopencv_dnn -lopencv_imgcodecs -lopencv_imgproc -lopencv_core

#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>
#include <vector>

struct Preprocessing {
  int size, channels;  // 3, or 1: grey
  std::string resize, transparency, channel_order;
  cv::Scalar mean, std, border_colour;
};

inline cv::Mat center(const cv::Mat& image, int height, int width) {
  return image(cv::Rect((image.cols - width) / 2, (image.rows - height) / 2, width, height));
}

// Area interpolation where no side grows and one is more than halved; else bilinear.
inline cv::Mat resized(const cv::Mat& image, int height, int width) {
  double vertical = double(image.rows) / height, horizontal = double(image.cols) / width;
  bool is_halved = std::min(vertical, horizontal) >= 1 && std::max(vertical, horizontal) > 2;
  cv::Mat result;
  cv::resize(image, result, cv::Size(width, height), 0, 0, is_halved ? cv::INTER_AREA : cv::INTER_LINEAR);
  return result;
}

inline cv::Mat fit(const cv::Mat& image, const Preprocessing& how) {
  int size = how.size, height = image.rows, width = image.cols;
  if (how.resize == "stretch") return resized(image, size, size);
  auto scaled = [](int side, double scale) { return std::max(1, int(std::nearbyint(side * scale))); };
  if (how.resize == "crop") {
    cv::Mat part = center(image, std::min(height, 4 * width), std::min(width, 4 * height));
    double scale = double(size) / std::min(height, width);
    return center(resized(part, scaled(part.rows, scale), scaled(part.cols, scale)), size, size);
  }
  double scale = double(size) / std::max(height, width);  // pad
  height = scaled(height, scale), width = scaled(width, scale);
  int top = (size - height) / 2, left = (size - width) / 2;
  cv::Mat result;
  cv::copyMakeBorder(resized(image, height, width), result, top, size - height - top, left, size - width - left,
                     cv::BORDER_CONSTANT, how.border_colour);
  return result;
}

// Width and height in the header of a JPEG; 0 of other files.
inline cv::Size jpeg_size(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<unsigned char> content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  auto number = [&](size_t place) { return 256 * content[place] + content[place + 1]; };
  if (content.size() < 4 || number(0) != 0xFFD8) return {};
  for (size_t place = 2; place + 9 <= content.size(); place += 2 + number(place + 2)) {
    int marker = content[place + 1];
    bool is_frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (is_frame) return {number(place + 7), number(place + 5)};
  }
  return {};
}

// A large JPEG is decoded at an eighth, a quarter or a half of its size.
inline int colour_mode(const std::string& path, int size) {
  cv::Size whole = jpeg_size(path);
  auto fits = [&](int by) {
    return whole.width % by == 0 && whole.height % by == 0 && std::min(whole.width, whole.height) >= 4 * by * size;
  };
  return fits(8)   ? cv::IMREAD_REDUCED_COLOR_8
         : fits(4) ? cv::IMREAD_REDUCED_COLOR_4
         : fits(2) ? cv::IMREAD_REDUCED_COLOR_2
                   : cv::IMREAD_COLOR;
}

inline bool is_png_or_webp(const std::string& path) {
  char start[4] = {};
  std::ifstream(path, std::ios::binary).read(start, 4);
  return std::string(start, 4) == "\x89PNG" || std::string(start, 4) == "RIFF";
}

// Upright, 8 bits a channel, on a background unless transparency is "drop".
inline cv::Mat read(const std::string& path, const std::string& transparency, int size) {
  cv::Mat image = cv::imread(path, colour_mode(path, size));
  if (image.empty()) throw std::runtime_error(path + " is not an image");
  if (transparency == "drop" || !is_png_or_webp(path)) return image;
  cv::Mat stored = cv::imread(path, cv::IMREAD_UNCHANGED), alpha, colours;
  if (stored.channels() < 4) return image;
  if (stored.depth() == CV_16U) stored.convertTo(stored, CV_8U, 1 / 256.0, -0.498);  // the upper 8 bits
  cv::cvtColor(stored, colours, cv::COLOR_BGRA2BGR);
  if (colours.size() != image.size() || cv::norm(colours, image, cv::NORM_INF) > 0)
    throw std::runtime_error(path + " has transparency and is rotated by its EXIF data: save it upright");
  double background = transparency == "white" ? 255 : 0;
  cv::extractChannel(stored, alpha, 3);
  alpha.convertTo(alpha, CV_32F, 1 / 255.0);
  cv::merge(std::vector<cv::Mat>(3, alpha), alpha);
  image.convertTo(colours, CV_32FC3);
  colours = colours.mul(alpha) + (cv::Scalar::all(1) - alpha) * background;
  colours.convertTo(image, CV_8UC3);
  return image;
}

inline cv::Mat prepare(const std::string& path, const Preprocessing& how) {
  cv::Mat image = read(path, how.transparency, how.size);
  if (how.channels == 1) cv::cvtColor(image, image, cv::COLOR_BGR2GRAY);
  image = fit(image, how);
  if (how.channels == 3 && how.channel_order == "rgb") cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
  cv::Mat input;
  image.convertTo(input, CV_32F, 1.0 / 255);
  cv::subtract(input, how.mean, input);
  cv::divide(input, how.std, input);
  return input;
}
